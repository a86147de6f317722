"""Floor 3: signatures of what the network relied on, and maps of many of them."""

from heatprint.core.protocols import Embedder, Signer
from heatprint.core.registry import Registry
from heatprint.signatures.door import Signatures, embed, sign

SIGNERS: Registry[Signer] = Registry("signatures", {"lrp": "heatprint.signatures.relevance:RelevanceSignature"})
EMBEDDERS: Registry[Embedder] = Registry(
    "embeddings",
    {"pca": "heatprint.signatures.embeddings:PCA", "umap": "heatprint.signatures.embeddings:UMAP"},
)


def make(name: str, **settings: object) -> Signer | Embedder:
    """A signer or an embedder by name."""
    return EMBEDDERS.make(name, **settings) if name in EMBEDDERS.names() else SIGNERS.make(name, **settings)


def names() -> list[str]:
    """Signers and embedders."""
    return sorted([*SIGNERS.names(), *EMBEDDERS.names()])


__all__ = ["EMBEDDERS", "SIGNERS", "Signatures", "embed", "make", "names", "sign"]
