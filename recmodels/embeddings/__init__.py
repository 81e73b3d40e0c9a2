"""Text encoders: profile texts in, fixed-width vectors out."""
