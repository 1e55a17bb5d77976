"""The exceptions that lcprune raises on purpose.

    LcpruneError
    ├── InputError            what the user gave can't be used; the command line exits with 2
    │   ├── BudgetError       a budget that can't be read or can't be met
    │   ├── DataError         a data set that is missing, damaged or of the wrong shape
    │   ├── ModelError        a model that can't be built, run or traced
    │   ├── DivergenceError   a training that gets nowhere at its learning rate
    │   ├── WeightsError      weights that are missing, damaged or don't fit
    │   └── RunError          a run directory in a state that forbids what was asked
    └── VerificationError     a check of our own failed; nothing is published, exit code 1

Every message is one line that says what was expected. What it repeats of a file or an argument
reaches no terminal as it is: control characters are written as escapes.

``LcpruneWarning`` is the class of every warning.
"""

from __future__ import annotations

from lcprune._text import printable, shortened

_LONGEST = 2000


class LcpruneError(Exception):
    """Root of every exception that lcprune raises on purpose."""

    def __init__(self, message: str = "") -> None:
        super().__init__(shortened(printable(message), _LONGEST))


class InputError(LcpruneError):
    """What the user gave can't be used."""


class BudgetError(InputError):
    """A budget that can't be read or can't be met."""


class DataError(InputError):
    """A data set that is missing, damaged or of the wrong shape."""


class ModelError(InputError):
    """A model that can't be built, run or traced."""


class DivergenceError(InputError):
    """A training that gets nowhere at its learning rate."""


class WeightsError(InputError):
    """Weights that are missing, damaged or don't fit the model."""


class RunError(InputError):
    """A run directory in a state that forbids what was asked."""


class VerificationError(LcpruneError):
    """The slimmed model does not equal the masked original."""


class LcpruneWarning(UserWarning):
    """What may not be as expected, in one line."""

    def __init__(self, message: str = "") -> None:
        super().__init__(shortened(printable(message), _LONGEST))
