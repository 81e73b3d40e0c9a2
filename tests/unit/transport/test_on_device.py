"""Sinkhorn with its matrix on a CUDA device: what the CPU gives, to rounding."""

import numpy as np
import pytest
from scipy import sparse

from recmodels.errors import InputError
from recmodels.transport.kernels import scaling_kernel
from recmodels.transport.sinkhorn import Form, sinkhorn


def problem() -> tuple[sparse.csr_array, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    cost = sparse.random_array((300, 200), density=0.05, rng=rng, format="csr")
    cost.data = np.where(rng.random(cost.nnz) < 0.3, 1.0, -1.0)
    return sparse.csr_array(cost), np.full(300, 2.0), np.full(200, 3.0)


@pytest.mark.gpu
def test_cuda_solves_what_the_cpu_solves() -> None:
    cost, a, b = problem()
    on_cpu, on_cuda = sinkhorn(cost, a, b), sinkhorn(cost, a, b, solver="cuda")
    assert on_cuda.converged
    np.testing.assert_allclose(on_cuda.log_f, on_cpu.log_f, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(on_cuda.log_g, on_cpu.log_g, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", ["scaling", "log"])
def test_a_device_that_is_not_there_is_refused_by_its_setting(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match=r"transport\.backend"):
        sinkhorn(*problem(), solver="cuda", form=form)


def test_products_with_a_stored_matrix_are_those_of_scipy() -> None:
    cost, a, b = problem()
    # The kernel that a device has, on the CPU: a tensor in place of a scipy matrix.
    plain, stored = scaling_kernel(cost, 0.7), scaling_kernel(cost, 0.7, "cpu:0")
    np.testing.assert_allclose(stored.rows(np.log(b)), plain.rows(np.log(b)), rtol=1e-12)
    np.testing.assert_allclose(stored.columns(np.log(a)), plain.columns(np.log(a)), rtol=1e-12)
