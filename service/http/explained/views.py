"""Where answers were seen, as the API shows it."""

from pydantic import BaseModel, Field

from model.saliency import METHOD, Saliency
from service.engine.saliency_work import Explained

EXPLAIN = Field(
    False,
    description="Add where each answer was seen, at the cost of one to two more passes a clip; for "
    "few clips, see `explained_clips` of /limits.",
)
WHERE = Field(None, description="With `explain`: where the answer's label was seen.")


class SaliencyView(BaseModel):
    """Where in the sampled frames the answer's label was seen."""

    method: Saliency = Field(
        description="How it was found; `gradient`: gradient of the label's score times tokens."
    )
    label: str
    frames: list[list[list[float]]] = Field(
        description="Of each frame the rows of a grid of square cells, each 0 to 1; 1 is the cell "
        "of the clip that speaks most for the label."
    )


def saliency_view(explained: Explained, label: str) -> SaliencyView | None:
    """Show where a label was seen; None where nobody knows."""
    if explained.grid_TSS is None:
        return None
    rows = explained.grid_TSS.astype(float).round(3).tolist()
    return SaliencyView(method=METHOD, label=label, frames=rows)
