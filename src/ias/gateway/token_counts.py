"""What a request used."""


class TokenCounts:
    """What is billed."""

    __slots__ = ("cached_input_tokens", "estimated", "input_tokens", "output_tokens")

    def __init__(
        self,
        input_tokens: int,
        cached_input_tokens: int,
        output_tokens: int,
        estimated: bool = False,
    ) -> None:
        self.input_tokens = input_tokens
        self.cached_input_tokens = cached_input_tokens
        """Part of the input tokens."""
        self.output_tokens = output_tokens
        self.estimated = estimated
        """Whether the engine has not said it."""
