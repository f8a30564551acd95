"""Trains one model.

python -m cosent.main --config=configs/cosent/api_docs_pairs.py --workdir=out/cosent
"""

from cosent import train
from expkit import app

if __name__ == "__main__":
    app.main(
        train.run,
        name="cosent.main",
        default_config="configs/cosent/api_docs_pairs.py",
    )
