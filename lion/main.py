"""Trains one model.

python -m lion.main --config=configs/lion/digits.py --workdir=out/lion
"""

from expkit import app
from lion import train

if __name__ == "__main__":
    app.main(train.run, name="lion.main", default_config="configs/lion/digits.py")
