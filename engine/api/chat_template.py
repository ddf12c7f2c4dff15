"""Whether a chat template (Jinja2) can be parsed. It is never rendered: nothing of it runs."""

from functools import lru_cache

from engine.api.wording import named


@lru_cache(maxsize=8)  # each look at a run asks
def template_fault(text: str) -> str | None:
    """What is wrong with the template and in which line, without a full stop; None where it parses.

    The tags are those of templates for language models: Jinja2's own, `break`, `continue`, `generation`.
    """
    from jinja2 import Environment, TemplateSyntaxError, nodes  # here: it takes time, few models need it
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012 - as Jinja2 declares it

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    try:
        Environment(extensions=[loopcontrols, Generation]).parse(text)
    except TemplateSyntaxError as error:
        return f"line {error.lineno}: {named(error.message or 'a mistake').rstrip('.')}"
    except (
        RecursionError,
        ValueError,
        OverflowError,
    ):  # brackets without end, a number of thousands of digits
        return "it is nested too deeply, or its numbers are too long"
    return None
