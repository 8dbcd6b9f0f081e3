"""The page of a module's Space: type a pair, press the button, read the numbers.

Gradio is no dependency of this package: it is imported when a page is built. The page goes through the module,
so that it shows what ``compute`` returns.
"""

from collections.abc import Sequence
from html import escape
from math import isnan
from typing import Any

from im_datasets.common.errors import ImDatasetsError, MissingExtraError
from im_datasets.common.untrusted import MESSAGE, shown
from im_datasets.indicators.score_columns import COLUMNS, span

Pair = tuple[str, str]


def build(module: Any, example: Pair, company: Sequence[Pair] = ()) -> Any:
    """The page of a module.

    Args:
        module: A loaded module of ``metrics/``; the settings it was loaded with are shown.
        example: Instruction and response to begin with.
        company: Further pairs to score the typed one among, for a module that compares rows; they are shown.

    Returns:
        The page, a ``gradio.Blocks``; ``.launch()`` serves it.

    Raises:
        MissingExtraError: Gradio is not installed.
    """
    try:
        import gradio
    except ImportError as error:
        raise MissingExtraError("a Space's page needs Gradio; pip install 'im-datasets[spaces]'") from error

    def answer(*typed: str) -> str:
        instruction, response = (example[0], *typed)[-2:]
        try:
            return scores_table(module, (instruction, response), company)
        except ImDatasetsError as error:
            raise gradio.Error(as_html(error)) from error

    with gradio.Blocks(title=module.name) as page:
        settings = "".join(f"\n\n{name}: `{value}`" for name, value in module.loaded_with.items())
        gradio.Markdown(f"# {module.name}\n\n{module.description.strip()}{settings}")
        instruction = gradio.Textbox(example[0], label="Instruction", lines=2, visible=module.reads_instruction)
        response = gradio.Textbox(example[1], label="Response", lines=6)
        button = gradio.Button("Score", variant="primary")
        table = gradio.Markdown(elem_id="scores")
        if company:
            rows = [list(pair) for pair in company]
            gradio.Dataframe(rows, headers=["instruction", "response"], label="The other rows", interactive=False)
        typed = [instruction, response] if module.reads_instruction else [response]
        button.click(answer, inputs=typed, outputs=table, api_name="score")
    return page


def as_html(error: ImDatasetsError) -> str:
    """What went wrong, as the text that it is: Gradio shows an error's message as HTML.

    >>> as_html(ImDatasetsError("no tokenizer <img src=x>"))
    'no tokenizer &lt;img src=x&gt;'
    """
    return escape(shown(error, MESSAGE))


def scores_table(module: Any, pair: Pair, company: Sequence[Pair] = ()) -> str:
    """The scores of a pair as a Markdown table.

    Args:
        module: A loaded module of ``metrics/``.
        pair: Instruction and response.
        company: Further pairs to score it among.

    Raises:
        ImDatasetsError: The pair cannot be scored for a reason of the settings or the model.

    Example:
        >>> from im_datasets.indicators.metric import metric
        >>> print(scores_table(metric("mtld", keep_in_memory=True), ("", "To be, or not to be, said he.")))
        | column | value | unit | range | good is |
        |---|---|---|---|---|
        | im_mtld | 8.48 | words | 0 to ∞ | higher is better |
    """
    pairs = [pair, *company]
    result = module.compute(predictions=[r for _, r in pairs], references=[i for i, _ in pairs])
    lines = ["| column | value | unit | range | good is |", "|---|---|---|---|---|"]
    for name in (key for key in result if key in COLUMNS):
        column, value = COLUMNS[name], result[name][0]
        text = "could not be scored" if isnan(value) else f"{value:.6g}"
        lines.append(f"| {name} | {text} | {column.unit} | {span(column)} | {column.direction} |")
    return "\n".join(lines)
