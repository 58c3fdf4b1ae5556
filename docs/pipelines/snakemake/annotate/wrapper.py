"""Annotate one file of cells with canal: a Snakemake wrapper."""

# Snakemake gives the rule to a wrapper as the variable `snakemake`.
from snakemake.shell import shell

model = snakemake.input.get("model") or snakemake.params.get("model")  # noqa: F821
if not model:
    message = "Name a model: input `model=` (a .canal or .voter file), or params `model=` (one that comes with canal)."
    raise ValueError(message)
data = snakemake.input.data  # noqa: F821
out = snakemake.output[0]  # noqa: F821
extra = snakemake.params.get("extra", "")  # noqa: F821
log = snakemake.log_fmt_shell(stdout=True, stderr=True)  # noqa: F821

# Snakemake has removed an output of an earlier run; OMP_NUM_THREADS keeps to the threads of the rule.
shell(
    "OMP_NUM_THREADS={snakemake.threads} canal annotate --model {model:q} --data {data:q} --out {out:q} {extra} {log}"
)
