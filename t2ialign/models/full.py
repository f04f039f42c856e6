"""All weights of a policy's network: trained beside a frozen copy, and written as diffusers reads them."""

import copy
import os
import shutil
from pathlib import Path

from rewards.permissions import share
from rewards.tensor_files import save_pretrained
from t2ialign.models.base import Policy


def train_all(policy: Policy) -> None:
    """Make every weight of the network trainable, in fp32, and keep a frozen copy of it as the reference."""
    policy.adapted.float()
    policy.frozen = copy.deepcopy(policy.adapted).requires_grad_(False)
    policy.adapted.requires_grad_(True)
    policy.autocast = True


def save_all(policy: Policy, folder: Path | str) -> Path:
    """Write the whole network as a folder called after its component, such as `folder/unet` -> its path.

    `from_pretrained` of the policy's `save_class` loads it.
    """
    final, partial = Path(folder) / policy.component, Path(folder) / f".{policy.component}.partial"
    save_pretrained(policy.adapted, partial)
    if final.exists():
        shutil.rmtree(final)
    os.replace(share(partial), final)
    return final
