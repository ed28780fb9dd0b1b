"""Shows that the trainer image needs no hub and no package index when it runs: with no way out of the machine it prepares the demo data, loads the encoder
that it holds and encodes a text. Runs from standard input or `python -c`, in the image or in an environment of the lock.

Every try to look up a name or to connect elsewhere is refused and fails the run, by an audit hook, whatever library tries.
"""

import sys


def refuse(event: str, arguments: tuple) -> None:
    """Refuse what leads out of this machine."""
    if event == "socket.getaddrinfo" and arguments[0] not in (None, "", "localhost", "127.0.0.1", "::1", b"localhost"):
        tried.append(str(arguments[0]))
        raise OSError(f"the network is off: {arguments[0]}")
    if (
        event == "socket.connect"
        and isinstance(arguments[1], tuple)
        and arguments[1][0] not in ("127.0.0.1", "::1", "localhost")
    ):
        tried.append(str(arguments[1][0]))
        raise OSError(f"the network is off: {arguments[1][0]}")


tried: list[str] = []
sys.addaudithook(refuse)


def main() -> None:
    """Prints ``OFFLINE`` and what was done; exit code 1 where something wanted the network."""
    import tempfile
    from pathlib import Path

    import torch
    from transformers import AutoModel

    import curricle.config
    from curricle.config.chain import load_stage
    from curricle.families.encoders import EMBEDDED, encoder_folder, load_model, load_tokenizer
    from curricle.steps.prepare import prepare_data

    base = Path(curricle.config.__file__).parent / "shipped" / "config.yaml"
    with tempfile.TemporaryDirectory() as store:
        config = load_stage(base, "01_stage", ["data.source=demo", f"paths.store_uri={store}"]).config
        data = prepare_data(config).rpartition("/")[2]
    folder = encoder_folder(EMBEDDED)
    model, _ = load_model(AutoModel, folder)
    with torch.no_grad():
        states = model(**load_tokenizer(folder)(["we brew craft beer"], return_tensors="pt")).last_hidden_state
    print(f"OFFLINE {data}, encoder {EMBEDDED}, states {tuple(states.shape)}, tried {sorted(set(tried))}", flush=True)
    sys.exit(1 if tried else 0)


main()
