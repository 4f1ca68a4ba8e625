"""What Hydra finds of heatgen by itself: it takes a sweeper from the package hydra_plugins alone."""

from heatgen.app import search


class Search(search.Search):
    __doc__ = search.Search.__doc__
