"""Where products and vector math come from: found by address, asked a known question, never a process-wide setting changed."""
import subprocess
import sys

import numpy as np
import pytest
import torch
from porting import _core, providers

ALL = {"sgemm", "dgemm", "sgemm_batch", "dgemm_batch", "set_num_threads_local", "vms_exp", "vms_log", "vms_tanh", "vms_erf",
       "vms_sin", "vms_cos", "vms_sqrt", "vms_log2", "vms_log10", "vms_tan", "vms_atan", "vms_acos", "vms_asin", "strsm", "sdot", "ddot"}
ALL |= {real + name for real in "sd" for name in ("gemv", "getrf", "getrs", "potrf", "geqrf", "orgqr", "syevd", "gesdd")}
ALL |= {f"dfti_{name}" for name in ("create_1d", "create_md", "set_value", "commit", "forward", "backward", "release")}


def run(script):
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def library(folder, name, source):
    """A shared library made of the C source."""
    (folder / f"{name}.c").write_text(source)
    path = folder / f"lib{name}.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", path, folder / f"{name}.c"], check=True)
    return path


def sgemm_source(first_term):
    return f"""
        void sgemm_(const char *ta, const char *tb, const int *m, const int *n, const int *k, const float *alpha, const float *a,
                    const int *lda, const float *b, const int *ldb, const float *beta, float *c, const int *ldc)
        {{
            for (int j = 0; j < *n; j++) {{
                for (int i = 0; i < *m; i++) {{
                    float sum = 0;
                    for (int t = {first_term}; t < *k; t++) {{
                        sum += (*ta == 't' ? a[t + i * *lda] : a[i + t * *lda]) * b[t + j * *ldb];
                    }}
                    c[i + j * *ldc] = *beta * c[i + j * *ldc] + *alpha * sum;
                }}
            }}
        }}"""


def test_the_torch_provider_has_all_functions():
    found = providers.load_torch_provider()
    assert set(found.functions) | set(found.missing) == ALL
    assert "sgemm" in found.functions and "torch" in _core.providers()
    assert found is providers.load_torch_provider()
    assert found.path in str(found)


def test_it_is_found_without_importing_torch():
    printed = run("import sys\nfrom porting import providers\nfrom porting._core import providers as names\nprint(*names())\n"
                  "providers.load_torch_provider()\nprint('torch' in sys.modules, *names())")
    before, after = printed[: printed.index("False")], printed[printed.index("False") + 1:]
    assert "torch" not in before and after == [*before, "torch"]


def test_a_process_without_torch_gives_torchs_bits():
    script = """
import numpy as np
from porting import _core, providers
providers.load_torch_provider()
rng = np.random.default_rng(0)
for threads in (1, 2):
    for m in (1, 2, 3, 4, 7, 64):
        x, w = (rng.standard_normal(shape, dtype=np.float32) for shape in ((m, 384), (192, 384)))
        y = _core.call_op("aten.linear.default", [x, w], provider="torch", num_threads=threads)
        print(y.view(np.uint32).astype(np.uint64).sum())
"""
    expected = []
    rng = np.random.default_rng(0)
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for m in (1, 2, 3, 4, 7, 64):
            x, w = (torch.empty(shape) for shape in ((m, 384), (192, 384)))
            for t in (x, w):
                t.copy_(torch.from_numpy(rng.standard_normal(tuple(t.shape), dtype=np.float32)))
            expected.append(str((x @ w.t()).numpy().view(np.uint32).astype(np.uint64).sum()))
    torch.set_num_threads(before)
    assert run(script) == expected
    assert run(script.replace("num_threads=threads)", "num_threads=threads) + np.float32(2**-18)")) != expected


@pytest.mark.parametrize("first_term, usable", [(0, True), (1, False)])
def test_a_library_that_multiplies_wrongly_is_refused(tmp_path, first_term, usable):
    path = library(tmp_path, "product", sgemm_source(first_term))
    script = f"""
from porting import _core, providers
try:
    found = providers.load_torch_provider({str(path)!r})
    print(*found.functions, len(found.missing), "torch" in _core.providers())
except _core.UnsupportedError as error:
    print("refused:", error, "torch" in _core.providers())
"""
    printed = run(script)
    if usable:
        assert printed == ["sgemm", str(len(ALL) - 1), "True"]
    else:
        assert printed[0] == "refused:" and "sgemm_" in printed and "wrong" in printed and printed[-1] == "False"


def test_vector_math_that_is_wrong_is_left_out(tmp_path):
    wrong = "\nvoid vmsExp(int n, const float *in, float *out, long long mode) { for (int i = 0; i < n; i++) out[i] = 1; }"
    path = library(tmp_path, "vector", sgemm_source(0) + wrong)
    printed = run(f"from porting import providers\nfound = providers.load_torch_provider({str(path)!r})\n"
                  "print(found.functions, found.missing['vms_exp'])")
    assert "vmsExp" in printed and "wrong" in printed and "('sgemm',)" in printed


@pytest.mark.parametrize("scale, usable", [(1, True), (2, False)])
def test_transforms_that_are_wrong_are_left_out(tmp_path, scale, usable):
    source = f"""
        typedef struct {{ long n, m; }} plan;
        static plan kept;
        long DftiCreateDescriptor_s_1d(void **p, int domain, long n) {{ kept = (plan){{1, n}}; *p = &kept; return domain != 32; }}
        long DftiCreateDescriptor_s_md(void **p, int domain, long d, const long *n) {{ kept = (plan){{n[0], n[1]}}; *p = &kept; return domain != 32; }}
        long DftiSetValue(void *p, int name, ...) {{ return p != &kept || name != 11; }}
        long DftiCommitDescriptor(void *p) {{ return p != &kept; }}
        long DftiFreeDescriptor(void **p) {{ return *p != &kept; }}
        static long run(const float *x, float *y, int sign)
        {{
            static const int cosines[] = {{1, 0, -1, 0}};
            for (long i = 0; i < kept.n; i++) for (long j = 0; j < kept.m; j++) {{
                float re = 0, im = 0;
                for (long k = 0; k < kept.n; k++) for (long l = 0; l < kept.m; l++) {{
                    long turn = (i * k * (4 / kept.n) + j * l * (4 / kept.m)) % 4;
                    float c = cosines[turn], s = sign * cosines[(turn + 3) % 4], u = x[2 * (k * kept.m + l)], v = x[2 * (k * kept.m + l) + 1];
                    re += {scale} * (c * u - s * v);
                    im += {scale} * (c * v + s * u);
                }}
                y[2 * (i * kept.m + j)] = re;
                y[2 * (i * kept.m + j) + 1] = im;
            }}
            return 0;
        }}
        long DftiComputeForward(void *p, const float *x, float *y) {{ return p != &kept || run(x, y, -1); }}
        long DftiComputeBackward(void *p, const float *x, float *y) {{ return p != &kept || run(x, y, 1); }}"""
    path = library(tmp_path, "transforms", sgemm_source(0) + source)
    printed = run(f"from porting import providers\nfound = providers.load_torch_provider({str(path)!r})\n"
                  "print('dfti_forward' in found.functions, found.missing.get('dfti_forward'))")
    assert printed[0] == str(usable) and ("wrong" in printed) != usable


@pytest.mark.parametrize("path, reason", [("/nowhere/libtorch_cpu.so", "cannot be loaded"), (_core.__file__, "no function sgemm_")])
def test_a_library_that_is_none_gets_one_sentence(path, reason):
    with pytest.raises(_core.UnsupportedError, match=reason):
        providers.load_torch_provider(path)


def test_no_torch_gets_one_sentence(monkeypatch):
    monkeypatch.setattr(providers, "torch_library_path", lambda: None)
    with pytest.raises(_core.UnsupportedError, match="installed PyTorch"):
        providers.load_torch_provider()


def test_unknown_names_and_null_addresses_are_refused():
    with pytest.raises(_core.PortingError, match="no function hgemm"):
        _core.set_torch_provider("hgemm", 4096)
    with pytest.raises(ValueError, match="null"):
        _core.set_torch_provider("sgemm", 0)


def test_config_says_what_there_is_and_what_is_chosen():
    providers.load_torch_provider()
    facts = providers.show_config()
    assert facts["auto"] == "torch" and "sgemm" in facts["torch functions"]
    assert facts["torch library"].endswith(("libtorch_cpu.so", "libtorch_cpu.dylib"))
    fresh = "import sys\nfrom porting import providers\nf = providers.show_config()\nprint(f['auto'], 'torch missing' in f, 'torch' in sys.modules)"
    assert run(fresh) == ["torch", str(bool(providers.load_torch_provider().missing)), "False"]
    without = "from porting import providers\nproviders.torch_library_path = lambda: None\nprint(providers.show_config()['auto'])"
    assert run(without) == ["openblas" if "openblas" in _core.providers() else "reference"]


def test_thread_settings_stay_as_they_were():
    """The library's setting of this thread and torch's own, after products that asked for other numbers."""
    library = providers.load_torch_provider().library
    x = np.ones((64, 64), np.float32)

    def counts():
        return library.MKL_Get_Max_Threads(), torch.get_num_threads()

    before = counts()
    for provider in _core.providers():
        for threads in (1, 2, 3):
            _core.call_op("aten.mm.default", [x, x], provider=provider, num_threads=threads)
    assert counts() == before
    torch.set_num_threads(before[1] + 1)
    try:
        changed = counts()
        _core.call_op("aten.mm.default", [x, x], provider="torch", num_threads=1)
        assert counts() == changed != before
    finally:
        torch.set_num_threads(before[1])
