"""A linear classifier of a task's supports, solved at once by ridge regression.

Source: model/papers/matching.md, section 11.

Dimensions: Q clips, S support clips, N classes, T frames, E feature width.
"""

import torch
from torch import Tensor, nn

from model.episode import ClassSet
from model.matching.cache import unit_means


class Ridge(nn.Module):
    """Least squares from mean frames to one-hot labels, with a penalty and a free constant.

    Each class weighs the same, whatever its number of shots.

    Args:
        penalty: Of the squared weights, above 0.
        scale: Of the scores, which lie around 0 and 1.
    """

    bounded, reads_shots = False, True
    per_task = True  # a class's weights depend on the shots of the others

    def __init__(self, penalty: float, scale: float) -> None:
        super().__init__()
        self.penalty, self.scale = penalty, scale

    def is_initial(self) -> bool:
        """Tell that there is nothing to train."""
        return True

    def forward(self, query_QTE: Tensor, classes: ClassSet) -> Tensor:
        """Fit the supports, and return what that gives the queries, video_QN.

        The system is solved in the space of the supports: S equations, not E.
        """
        support_SE = unit_means(torch.cat(classes.shots))
        counts = torch.tensor([len(shots) for shots in classes.shots], device=support_SE.device)
        ways = len(counts)
        label_S = torch.arange(ways, device=support_SE.device).repeat_interleave(counts)
        root_S1 = counts[label_S, None].float().rsqrt()  # a shot weighs 1 / K
        centre_E = (support_SE * root_S1.square()).sum(dim=0) / ways
        away_SE = (support_SE - centre_E) * root_S1
        wanted_SN = torch.eye(ways, device=support_SE.device)[label_S] - 1 / ways
        penalty_SS = self.penalty * torch.eye(len(support_SE), device=support_SE.device)
        dual_SN = torch.linalg.solve(away_SE @ away_SE.T + penalty_SS, wanted_SN * root_S1)
        query_QE = unit_means(query_QTE) - centre_E
        return self.scale * (1 / ways + query_QE @ away_SE.T @ dual_SN)
