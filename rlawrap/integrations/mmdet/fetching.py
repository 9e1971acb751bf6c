"""Checkpoints by path, URL or the names that mmengine knows; no code in a file is run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlparse

import torch
from mmengine import fileio
from mmengine.dist import barrier, get_rank
from mmengine.runner.checkpoint import get_external_models, get_torchvision_models

from rlawrap.errors import CheckpointError
from rlawrap.weights import parse_weights, read_weights_file, state_dict_in

#: Who knows the URL behind a name such as "torchvision://resnet50".
_CATALOGUES = {
    "torchvision": get_torchvision_models,
    "modelzoo": get_torchvision_models,
    "open-mmlab": get_external_models,
    "openmmlab": get_external_models,
}


def fetch_state(source: str) -> Mapping[str, Any]:
    """The state dict at a path, a URL, a name as in "torchvision://resnet50", or in a store.

    mmengine's own loader would run what a downloaded pickle says; here weights alone are read.
    Raises `CheckpointError`.
    """
    scheme, separator, rest = source.partition("://")
    if not separator:
        path = Path(source).expanduser()
        if not path.is_file():
            raise CheckpointError(
                f"{source}: no such file. Name yours in the configuration, or at the command line: "
                "`--cfg-options model.backbone.init_cfg.checkpoint=FILE`."
            )
        loaded = read_weights_file(path)
    elif scheme in ("http", "https"):
        loaded = read_weights_file(_download(source))
    elif scheme in _CATALOGUES:
        urls = _CATALOGUES[scheme]()
        if rest not in urls:
            raise CheckpointError(f"{source}: mmengine knows no such name.")
        loaded = read_weights_file(_download(urls[rest]))
    else:
        try:
            content = fileio.get(source)
        except Exception as error:  # every kind of store has errors of its own
            raise CheckpointError(f"{source}: cannot be read: {error}") from error
        loaded = parse_weights(content, source)
    return state_dict_in(loaded, source)


def _download(url: str) -> Path:
    """The file of a URL, in torch.hub's folder; process 0 fetches it and the others find it."""
    target = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(url).path).name)
    if get_rank() != 0:
        barrier()
    try:
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(target), progress=False)
    except (URLError, OSError, RuntimeError) as error:
        raise CheckpointError(f"{url}: cannot be fetched: {error}") from error
    finally:
        if get_rank() == 0:
            barrier()
    return target
