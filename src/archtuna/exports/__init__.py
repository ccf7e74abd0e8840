"""Files that run without archtuna, one format a module, each proved to be the model before it is kept."""

from archtuna.exports import executorch, module, onnx, pt2, torchscript
from archtuna.exports.formats import FORMATS, TOLERANCE, Format, Options, suffixes, unsupported
from archtuna.exports.layers import UnitDifference
from archtuna.exports.precision import PRECISIONS, Precision
from archtuna.exports.proof import Proof
from archtuna.exports.write import Artefact, Exported, artefact, deployed, export

SUFFIXES = suffixes()
"""Which format the suffix of a file names."""

__all__ = [
    "FORMATS",
    "PRECISIONS",
    "SUFFIXES",
    "TOLERANCE",
    "Artefact",
    "Exported",
    "Format",
    "Options",
    "Precision",
    "Proof",
    "UnitDifference",
    "artefact",
    "deployed",
    "executorch",
    "export",
    "module",
    "onnx",
    "pt2",
    "torchscript",
    "unsupported",
]
