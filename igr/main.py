"""Trains one model.

python -m igr.main --config=configs/igr/digits.py --workdir=out/igr
"""

from expkit import app
from igr import train

if __name__ == "__main__":
    app.main(train.run, name="igr.main", default_config="configs/igr/digits.py")
