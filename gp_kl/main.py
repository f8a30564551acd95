"""Trains one model.

python -m gp_kl.main --config=configs/gp_kl/news_entities.py --workdir=out/gp_kl
"""

from expkit import app
from gp_kl import train

if __name__ == "__main__":
    app.main(
        train.run, name="gp_kl.main", default_config="configs/gp_kl/news_entities.py"
    )
