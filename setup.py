"""Package metadata: the one place for the version, the requirements and the commands."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithConfigs(build_py):
    """Copies the YAML files of configs/ into ascnet/configs, so that an installed wheel has them too."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "ascnet" / "configs"
            target.mkdir(parents=True, exist_ok=True)
            for source in sorted((ROOT / "configs").glob("*.yaml")):
                shutil.copyfile(source, target / source.name)


setup(
    name="dali-pipes",
    version="0.1.0",
    description="Video clips at several playback speeds, fast, from raw videos; and ASCNet pretraining on top of them.",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8") if (ROOT / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["video", "self-supervised", "DALI", "PyTorch", "data loading", "ASCNet"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: GPU :: NVIDIA CUDA",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Multimedia :: Video",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    packages=find_packages(include=["dali_pipes", "dali_pipes.*", "ascnet", "ascnet.*", "bench", "bench.*"]),
    package_data={
        "dali_pipes": ["py.typed"],
        "ascnet": ["py.typed", "report/page.*", "search/page.*", "search/icon.svg"],
        "bench": ["py.typed", "page/page.*"],
    },
    cmdclass={"build_py": BuildWithConfigs},
    zip_safe=False,
    install_requires=[
        "torch>=2.4",
        "nvidia-dali-cuda120>=2.4",
        "numpy>=1.26",
        "av>=16",
        "pyarrow>=15",
        "pyyaml>=6",
        "rich>=13",
        "einops>=0.8",
        "safetensors>=0.4",
        "matplotlib>=3.8",
        "pillow>=10.1",
        "tensorboard>=2.15",
        "fsspec>=2024.2",
    ],
    extras_require={
        # What bench compares with, and what draws its results.
        "bench": ["torchcodec", "decord", "opencv-python-headless", "spdl-io", "faiss-cpu", "vl-convert-python"],
        # Where videos may lie besides the disk; corpus jobs on many machines.
        "http": ["aiohttp"],
        "s3": ["s3fs"],
        "gs": ["gcsfs"],
        "ray": ["ray"],
        # Decodes small copies faster than PyAV; needs FFmpeg's shared libraries.
        "torchcodec": ["torchcodec"],
        # Encoders for other runtimes: `ascnet export --format onnx`.
        "onnx": ["onnx", "onnxscript", "onnxruntime"],
        # Logs of training: Weights & Biases; the load of GPUs and of the machine.
        "wandb": ["wandb"],
        "monitor": ["nvidia-ml-py", "psutil"],
        # A quicker search in many features.
        "faiss": ["faiss-cpu"],
        # The flat map of features in `ascnet report --html`: t-SNE; without it, principal components.
        "report": ["scikit-learn"],
        "dev": [
            *("pytest>=8", "ruff>=0.9", "mypy>=1.13", "types-PyYAML"),
            *("aiohttp", "s3fs", "moto[server]", "gcsfs", "gcp-storage-emulator"),
            *("ray", "lightning", "psutil"),
            *("onnx", "onnxscript", "onnxruntime", "torchcodec", "triton"),
            *("scikit-learn", "torchmetrics", "vl-convert-python"),
        ],
    },
    entry_points={
        "console_scripts": [
            "ascnet = ascnet.cli:main",
            "dali-pipes = dali_pipes.cli:main",
        ],
    },
)
