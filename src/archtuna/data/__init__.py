"""Image sets: where pictures come from, how they are split, decoded once, and served in augmented batches.

source      Data: a folder, an .npz, `digits`, or anything in memory, behind one face
folder      the listing of class folders                   archive     arrays: .npz, `digits`, data sets in memory
picture     one picture, from any file to plain pixels     ledger      what is remembered between openings
cache       the folder on disk, built once and atomically  images      all pictures at one size, memory-mapped
split       train, validation and test                     preprocess  from a picture to what a network takes
augment     random changes, a batch at a time              batches     epochs of batches, repeatable bit for bit
"""

from archtuna.data.batches import Batches
from archtuna.data.cache import cache_folder, clear_cache
from archtuna.data.images import Images
from archtuna.data.preprocess import Preprocess
from archtuna.data.source import Data
from archtuna.data.split import Split

__all__ = ["Batches", "Data", "Images", "Preprocess", "Split", "cache_folder", "clear_cache"]
