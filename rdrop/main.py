"""Trains one model.

python -m rdrop.main --config=configs/rdrop/reviews.py --workdir=out/rdrop
"""

from expkit import app
from rdrop import train

if __name__ == "__main__":
    app.main(train.run, name="rdrop.main", default_config="configs/rdrop/reviews.py")
