"""The command line called in this process, and what it makes of the bundled model, a fixture to import."""

import pytest

from lampq.cli import main
from lampq.demo_data import CALIBRATION_PATH, MODEL_PATH, VALIDATION_PATH

MODEL, CALIB, VAL = str(MODEL_PATH), str(CALIBRATION_PATH), str(VALIDATION_PATH)
PIXELS = ["--mean", "0.305", "--std", "0.376"]


def run(capfd, *words):
    """Exit code, standard output and standard error of a command."""
    code = main([str(word) for word in words])
    out, err = capfd.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a profile and a plan of the bundled model."""
    folder = tmp_path_factory.mktemp("work")
    words = ["--samples", "64", "--bits", "2,3,4,8", *PIXELS, "--quiet", "-o", str(folder / "profile.json")]
    assert main(["profile", MODEL, "--data", CALIB, *words]) == 0
    assert (
        main(
            [
                "plan",
                str(folder / "profile.json"),
                "--avg-bits",
                "3",
                "--quiet",
                "-o",
                str(folder / "plan.json"),
            ]
        )
        == 0
    )
    return folder
