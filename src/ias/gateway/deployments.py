"""Stage for the paths of Azure's clients, `/openai/deployments/{model}/…`: the model that the path names goes into the body."""

from urllib.parse import unquote_to_bytes

import msgspec

from ias.gateway.context import Gateway
from ias.gateway.endpoints import deployment_in_path
from ias.gateway.errors import unparsable_body
from ias.gateway.exchange import NEXT, Exchange, Progress
from ias.gateway.json_splice import edit_object

_object_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def name_model(exchange: Exchange, gateway: Gateway) -> Progress:
    """Set the body's `model`, which these clients may leave out, and which their path overrules."""
    del gateway
    request = exchange.request
    try:
        _object_decoder.decode(request.body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise unparsable_body() from error
    name = unquote_to_bytes(deployment_in_path(request.path.partition(b"?")[0])).decode("utf-8", "replace")
    request.body = edit_object(request.body, put={"model": msgspec.json.encode(name)})
    return NEXT
