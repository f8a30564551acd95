"""Trains one model.

python -m childtuning.main --config=configs/childtuning/reviews.py --workdir=out/x
"""

from childtuning import train
from expkit import app

if __name__ == "__main__":
    app.main(
        train.run,
        name="childtuning.main",
        default_config="configs/childtuning/reviews.py",
    )
