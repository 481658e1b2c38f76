"""Package metadata of the EAT plugin; the pinned environment is in `requirements/`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent


def read_long_description() -> str:
    """Returns the README, or nothing where only the sources were copied."""
    readme = HERE / "README.md"
    return readme.read_text(encoding="utf-8") if readme.is_file() else ""


def read_pin(name: str, pins: str = "requirements/pins.txt") -> str:
    """Returns `name==version` as the file of pins states it, so that a version is written once."""
    text = (HERE / pins).read_text(encoding="utf-8")
    found = re.search(rf"^{re.escape(name)}==\S+", text, flags=re.MULTILINE)
    if found is None:
        raise ValueError(f"{pins} has no pin of {name!r}")
    return found.group()


setup(
    name="eat-plugin",
    version="0.1.0",
    description="Self-supervised audio learning (Efficient Audio Transformer): use and training",
    long_description=read_long_description(),
    long_description_content_type="text/markdown",
    author="EAT plugin authors",
    license="MIT",
    python_requires=">=3.9",
    packages=find_packages(include=["eat_plugin", "eat_plugin.*"]),
    package_data={
        "eat_plugin": [
            "config/*.yaml",
            "config/*/*.yaml",
            "data/*.csv",
            "report/*.j2",
            "report/*.json",
        ]
    },
    # What the use of a model needs. Training also needs fairseq, which is installed as `fairseq` or
    # as `fairseq-fixed`, often from a checkout; whoever has one must not have it replaced. `train`
    # brings one to the others.
    install_requires=["numpy", "soundfile", "torch>=2.1"],
    extras_require={
        "train": [read_pin("fairseq-fixed"), "hydra-core", "omegaconf"],
        "completion": ["argcomplete"],
        "safetensors": ["safetensors"],
        "hf": ["safetensors", "transformers>=4.51"],
        "onnx": ["onnx", "onnxruntime", "onnxscript"],
        "events": ["sed_scores_eval", "pandas<3"],
        "plot": ["matplotlib"],
        "report": ["jinja2", "matplotlib", "vl-convert-python"],
        "hdf5": ["h5py"],
        "images": ["pillow>=10.1"],
        "remote": ["aiohttp", "fsspec", "s3fs"],
        "parquet": ["pyarrow"],
        "energon": ["pyyaml"],
        "probe": ["scikit-learn"],
        "tensorboard": ["tensorboard"],
        "dev": [
            "h5py",
            "matplotlib",
            "mkdocs-material",
            "mypy",
            "pytest",
            "pytest-xdist",
            "ruff",
            "scikit-learn",
            "tensorboard",
        ],
    },
    entry_points={"console_scripts": ["eat = eat_plugin.cli:main"]},
    classifiers=[
        "License :: OSI Approved :: MIT License",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Multimedia :: Sound/Audio :: Analysis",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
