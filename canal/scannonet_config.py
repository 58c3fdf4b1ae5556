"""Configuration of what is scAnnoNet's own: its choice of genes and its gated perceptron."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class SpecificGenesConfig(_Frozen):
    """Genes that mark one type of a stage, and the genes that go along with them."""

    markers: int = Field(ge=1, description="most markers of a type")
    fold_change: float = Field(ge=0, description="least log2 of a marker's mean in its type over that in the others")
    false_discovery: Annotated[float, Field(gt=0, lt=1)] = Field(description="rate of the corrected co-expression test")
    min_correlation: Share = Field(description="least absolute correlation with a marker; 0: the test alone decides")
    min_cells: int = Field(ge=2, description="cells that a type needs to choose genes, and that must express a gene")


class ScAnnoNetConfig(_Frozen):
    """A perceptron behind a gate that weighs each gene of each cell (scAnnoNet)."""

    kind: Literal["scannonet"]
    gate: int = Field(ge=1, description="width of the gate's hidden layer")
    hidden: int = Field(ge=1)
    dim: int = Field(ge=1, description="size of the representation")
    dropout: Annotated[float, Field(ge=0, lt=1)]
    gate_weight: float = Field(ge=0, description="weight of the gate's distance to the discriminative index")
    collinearity_weight: float = Field(ge=0, description="weight of the collinearity of the representation")
    gate_epochs: int = Field(ge=0, description="epochs that a new gate is trained alone")
    gate_learning_rate: float = Field(gt=0)
