"""Trains one variational autoencoder.

python -m vmf_vae.main --config=configs/vmf_vae/digits.py --workdir=out/vmf_vae
"""

from expkit import app
from vmf_vae import train

if __name__ == "__main__":
    app.main(train.run, name="vmf_vae.main", default_config="configs/vmf_vae/digits.py")
