"""What goes wrong on one machine, said in one line, with what to do."""


class PlatformError(Exception):
    """Something the person at the keyboard can act on. Shown as one line, never as a traceback.

    `advice` says what to do next; it may be empty when the message already does.
    """

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.message}: {self.advice}" if self.advice else self.message


class NotRunningError(PlatformError):
    """No platform runs on this data."""


class UsageProblemError(PlatformError):
    """What was asked for does not fit together."""


class InterruptedStartError(PlatformError):
    """Someone ended the platform before it was up."""
