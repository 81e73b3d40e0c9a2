"""Where the blocks of a large stage are computed: in this process or on the machines of a cluster."""
