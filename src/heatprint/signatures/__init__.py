"""Floor 3: signatures of what the network relied on, and maps of many of them."""

from heatprint.core.errors import InvalidInput, UnknownName
from heatprint.core.protocols import Embedder, Signer
from heatprint.core.registry import Registry
from heatprint.signatures.door import Signatures, cluster, embed, sign
from heatprint.signatures.strategies import Clusterer, Strategies

SIGNERS: Registry[Signer] = Registry(
    "signatures",
    {
        "lrp": "heatprint.signatures.relevance:RelevanceSignature",
        "shap": "heatprint.signatures.shap:SHAPSignature",
        "activations": "heatprint.signatures.activations:ActivationSignature",
        "logits": "heatprint.signatures.activations:LogitSignature",
    },
)
EMBEDDERS: Registry[Embedder] = Registry(
    "embeddings",
    {
        "pca": "heatprint.signatures.embeddings.pca:PCA",
        "torchdr": "heatprint.signatures.embeddings.torchdr:TorchDR",
        "tsne": "heatprint.signatures.embeddings.tsne:TSNE",
        "umap": "heatprint.signatures.embeddings.umap:UMAP",
    },
)
CLUSTERERS: Registry[Clusterer] = Registry(
    "clusterers",
    {
        "gebi": "heatprint.signatures.spray.gebi:GEBI",
        "spray": "heatprint.signatures.spray.spray:SpRAy",
        "two-view": "heatprint.signatures.spray.views:TwoViews",
    },
)


def make(name: str, **settings: object) -> Signer | Embedder | Clusterer:
    """A signer, an embedder or a clusterer by name.

    Raises:
        UnknownName: No such method, or no such setting; the nearest one is named.
        InvalidInput: A setting of the wrong type or out of range, or an installed package gave one name to two kinds.
    """
    tables: dict[str, Registry[Signer] | Registry[Embedder] | Registry[Clusterer]] = {
        "SIGNERS": SIGNERS,
        "EMBEDDERS": EMBEDDERS,
        "CLUSTERERS": CLUSTERERS,
    }
    found = [where for where, table in tables.items() if name in table.names()]
    if not found:
        raise UnknownName("signatures: the name", name, names())
    if len(found) > 1:
        raise InvalidInput(
            f"signatures: {name!r} is the name of several methods, in {' and '.join(found)}. Say which is meant: "
            f"write signatures.{found[0]}.make({name!r}), or rename the entry point of the installed package."
        )
    return tables[found[0]].make(name, **settings)


def names() -> list[str]:
    """Signers, embedders and clusterers."""
    return sorted([*SIGNERS.names(), *EMBEDDERS.names(), *CLUSTERERS.names()])


__all__ = [
    "CLUSTERERS",
    "EMBEDDERS",
    "SIGNERS",
    "Clusterer",
    "Signatures",
    "Strategies",
    "cluster",
    "embed",
    "make",
    "names",
    "sign",
]
