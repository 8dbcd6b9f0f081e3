"""What looks like a token is found wherever it stands, and what was found is never repeated."""

import json
from pathlib import Path
from time import perf_counter

import pytest
from datasets import Dataset, Features, Image, List

from im_datasets.hub.secret_scan import _FORMATS, find_secrets, find_secrets_in_files, looks_like

# Put together here, so that no scanner takes this file for a leak.
SECRETS = {
    "Hugging Face token": "hf_" + "aB3" * 12,
    "GitHub token": "ghp_" + "aB3d" * 9,
    "GitLab token": "glpat-" + "aB3d" * 5,
    "OpenAI or Anthropic key": "sk-proj-" + "aB3d" * 10,
    "AWS access key": "AKIA" + "ABCD" * 4,
    "Google API key": "AIza" + "aB3dE" * 7,
    "Slack token": "xoxb-" + "1234567890-abc",
    "Slack app token": "xapp-1-" + "A012BCDEF34-1234567890123-" + "ab34" * 16,
    "Slack webhook": "https://hooks.slack.com/services/" + "T012ABCDE/B012ABCDE/" + "aB3d" * 6,
    "AWS secret key": "aws_secret_access_key = " + "aB3/" * 10,
    "Azure storage key": "AccountName=me;AccountKey=" + "aB3/" * 21 + "aB==",
    "Azure access signature": "https://me.example.org/x?sv=2022-11-02&ss=b&sig=" + "aB3d" * 10 + "aB3%3D",
    "Google client secret": "GOCSPX-" + "aB3d" * 7,
    "Discord bot token": "MTIz" * 6 + ".aB3d-_." + "aB3d" * 6 + "aB3",
    "Discord webhook": "https://discord.com/api/webhooks/" + "123456789012345678/" + "aB3d" * 17,
    "Telegram bot token": "123456789:" + "AAaB3d-" * 5,
    "Databricks token": "dapi" + "ab34" * 8,
    "Groq key": "gsk_" + "aB3d" * 13,
    "xAI key": "xai-" + "aB3d" * 20,
    "NVIDIA key": "nvapi-" + "aB3d" * 16,
    "Perplexity key": "pplx-" + "aB3d" * 12,
    "Replicate token": "r8_" + "aB3d" * 9 + "a",
    "LangSmith key": "lsv2_pt_" + "ab34" * 8 + "_" + "ab34a" * 2,
    "Shopify token": "shpat_" + "ab34" * 8,
    "Docker token": "dckr_pat_" + "aB3d" * 6 + "aB3",
    "Vault token": "hvs." + "aB3d" * 23,
    "Grafana token": "glsa_" + "aB3d" * 8 + "_" + "ab34" * 2,
    "Linear key": "lin_api_" + "aB3d" * 10,
    "Stripe key": "sk_live_" + "aB3d" * 6,
    "npm token": "npm_" + "aB3d" * 9,
    "PyPI token": "pypi-AgEI" + "aB3d" * 15,
    "Google access token": "ya29." + "aB3d" * 15,
    "SendGrid key": "SG." + "aB3d" * 5 + "aB." + "aB3d" * 10 + "aB3",
    "DigitalOcean token": "dop_v1_" + "ab34" * 16,
    "password in an address": "postgres://me:" + "p4ssw0rd@host/db",
    "private key": "-----BEGIN OPENSSH " + "PRIVATE KEY-----",
    "JSON web token": "eyJ" + "aB3d" * 4 + ".eyJ" + "aB3d" * 4 + "." + "aB3d" * 4,
}


MORE = [
    ("Hugging Face token", "hf_oauth_" + "aB3d" * 10),
    ("Hugging Face token", "api_org_" + "aB3d" * 9),
    ("private key", "-----BEGIN PGP " + "PRIVATE KEY BLOCK-----"),
    ("private key", "-----BEGIN " + "PRIVATE KEY-----"),
    ("password in an address", "https://me:" + "Secret%20word9@example.org/x"),
    ("password in an address", "redis://:" + "p4ssw0rd@cache:6379"),
    ("GitLab token", "glrt-" + "aB3d" * 5),
    ("Slack token", "xoxe.xoxp-" + "1-aB3daB3d"),
    ("AWS secret key", '"SecretAccessKey": "' + "aB3/" * 10 + '"'),
    ("AWS secret key", "AWS_SECRET_ACCESS_KEY=" + "aB3+" * 10),
    ("AWS secret key", "aws configure set aws_secret_access_key " + "aB3d" * 10),
    ("Azure storage key", "azure_storage_account_key: '" + "aB3/" * 21 + "aB=='"),
    ("Discord webhook", "https://discordapp.com/api/v10/webhooks/" + "123456789012345678/" + "aB3d" * 17),
]


@pytest.mark.parametrize(("kind", "secret"), [*SECRETS.items(), *MORE])
def test_find_secrets_knows_the_usual_formats(kind, secret):
    found = find_secrets(Dataset.from_dict({"text": ["nothing", f"It is {secret}."], "n": [1, 2]}))
    assert [(finding.kind, finding.column, finding.rows) for finding in found] == [(kind, "text", [1])]
    assert secret not in str(found[0]) + repr(found[0])


def test_every_format_has_its_case_here():
    assert set(SECRETS) == set(_FORMATS)


def test_an_aws_secret_is_known_by_the_id_beside_it():
    identity, secret = SECRETS["AWS access key"], "aB3/" * 10
    for text in (f"{identity},{secret}", f"id: {identity}\nsecret: {secret}", f"{identity}:{secret}"):
        assert looks_like(text) == ["AWS access key", "AWS secret key"]
    for text in (f"{identity} at commit {'ab34' * 10}", f"{identity}{' far' * 40} {secret}", secret):
        assert "AWS secret key" not in looks_like(text)


TOKEN = "hf_" + "aB3" * 12
NESTED = {
    "a conversation": [{"role": "user", "content": f"It is\n{TOKEN}"}],
    "a field": {"token": TOKEN, "n": 1},
    "a list of lists": [["x"], [TOKEN]],
    "JSON in a text": json.dumps({"note": f"first line\n{TOKEN}"}),
    "JSON twice in a text": json.dumps(json.dumps({"note": f"first\n{TOKEN}"})),
    "a program": f'print("\\n{TOKEN}\\n")',
    "an escaped letter": "\\u0068\\u0066" + TOKEN[2:],
}


@pytest.mark.parametrize("value", NESTED.values(), ids=NESTED)
def test_find_secrets_looks_into_nested_texts_and_names_the_source_rows(value):
    rows = Dataset.from_dict({"messages": [value, type(value)()], "im_row": [70, 71]})
    assert [(finding.column, finding.rows) for finding in find_secrets(rows)] == [("messages", [70])]


def test_find_secrets_takes_names_and_values_of_fields_together():
    rows = Dataset.from_dict({"login": [{"SecretAccessKey": "aB3/" * 10}, {"SecretAccessKey": ""}]})
    assert [finding.kind for finding in find_secrets(rows)] == ["AWS secret key"]


def test_find_secrets_looks_at_the_path_of_media_and_opens_none():
    image = {"path": f"{TOKEN}.png", "bytes": b"no image"}
    rows = Dataset.from_dict({"image": [image], "images": [[image]]}).cast(
        Features({"image": Image(), "images": List(Image())})
    )
    assert [finding.column for finding in find_secrets(rows)] == ["image", "images"]


def test_find_secrets_in_files_names_file_and_line():
    findings = find_secrets_in_files({"README.md": "fine", "notes.json": f'{{\n "a": ["--token", "{TOKEN}"]}}'})
    assert list(map(str, findings)) == ["file 'notes.json' holds what looks like a Hugging Face token in line 2"]
    assert TOKEN not in repr(findings)


NEAR_MISSES = [
    *("Use sk-learn and hf_hub.", "ghp_short", "eyJ is how it starts", "AKIA", "task-" + "a" * 50),
    *("postgres://user:password@host/db", "https://example.org:8080/@me", "mailto:me@example.org", "SG.short.x"),
    *("redis://:${PASSWORD}@host", "ftp://user:<password>@host", "See http://a.b/c:d@e and ya29.short"),
    "https://hooks.slack.com/services/T00000000/B00000000/" + "X" * 24,  # as its documentation writes it
    "https://discord.com/api/webhooks/ID/TOKEN",
    "aws_secret_access_key = YOUR_SECRET_KEY",
    "secret_key: " + "ab34" * 10,  # a digest
    "sha512-" + "aB3/" * 21 + "aB==",  # of a lock file
    "DefaultEndpointsProtocol=https;AccountKey=<key>;",
    "https://example.org/x?sv=2&sig=" + "a" * 50,
    "sk-a-page-whose-name-is-a-long-row-of-words-and-nothing-else",
    "12345678:" + "-" * 40,
    "2024010112:" + "a" * 35,
    "MyModule.Sub-mod.a_function_of_a_very_long_name_indeed",
    "dapi" + "ab34" * 16,  # longer than a token
    "gsk_of_the_group and xai-lab, r8_x, pplx-online, hvs.short, shpat_x, npm_config_registry",
    "lsv2_pt_x glsa_x_y lin_api_key dckr_pat_x nvapi-key GOCSPX-x xapp-1-A xoxb-",
    "-----BEGIN PUBLIC KEY-----",
    None,
]


def test_find_secrets_passes_ordinary_texts():
    found = find_secrets(Dataset.from_dict({"text": NEAR_MISSES}))
    assert [(finding.kind, NEAR_MISSES[finding.rows[0]]) for finding in found] == []


@pytest.mark.shared_data
def test_find_secrets_finds_none_in_real_datasets(shared_data: Path):
    """0 false alarms on 5,000 rows of Alpaca, and on Dolly, GSM8K, code and GPTeacher."""
    alpaca = json.loads((shared_data / "alpaca52k" / "alpaca_data.json").read_text(encoding="utf-8"))[:5000]
    assert find_secrets(Dataset.from_list(alpaca)) == []
    for folder in ("dolly", "gsm8k_alpaca", "code_alpaca", "gpteacher"):
        for file in (shared_data / folder).glob("*.json"):
            assert find_secrets_in_files({file.name: file.read_text(encoding="utf-8")}) == []


SIZE = 100_000


def adversaries(secret):
    """Texts made of the beginnings of a secret, again and again, whole or followed by what it is made of."""
    for cut in sorted({*range(1, min(len(secret), 12)), len(secret) // 3, len(secret) // 2, len(secret) - 1}):
        start = secret[:cut]
        yield from (start + join for join in ("", "-", ".", " ", ":", "/", "\\n"))
        yield start + secret[-2:] * cut


@pytest.mark.parametrize("kind", _FORMATS)
def test_the_time_of_a_format_grows_with_the_text_and_no_faster(kind):
    shape, secret = _FORMATS[kind].shape, SECRETS[kind]
    texts = [(piece * SIZE)[:SIZE] for piece in adversaries(secret)]
    texts += [secret[:cut] + secret[cut] * SIZE for cut in (len(secret) // 4, len(secret) // 2, len(secret) - 1)]
    for text in texts:
        text = text.replace(secret, "")
        clock = perf_counter()
        shape.search(text)
        took = perf_counter() - clock
        if took > 0.05:  # else it could be nothing but linear
            again = min(_seconds(shape, text + text[: len(text)]) for _ in range(3))
            once = min(_seconds(shape, text) for _ in range(3))
            assert again < 3 * once + 0.05, (kind, text[:60])


def _seconds(shape, text):
    clock = perf_counter()
    shape.search(text)
    return perf_counter() - clock


def test_a_text_of_many_megabytes_takes_seconds():
    prose = "Call 12:30 at the bank: https://example.org/a?b=c, e.g. no. 5. The secret of the sauce is time.\n" * 50_000
    clock = perf_counter()
    assert looks_like(prose) == []
    assert perf_counter() - clock < 5


def test_finding_has_the_article_of_its_kind():
    found = find_secrets(Dataset.from_dict({"text": [SECRETS["OpenAI or Anthropic key"], SECRETS["npm token"]]}))
    assert [str(finding).partition("looks like ")[2].split(" in row")[0] for finding in found] == [
        "an OpenAI or Anthropic key",
        "an npm token",
    ]


def test_finding_shortens_a_long_list():
    found = find_secrets(Dataset.from_dict({"text": [SECRETS["npm token"]] * 25}))
    assert str(found[0]).endswith("17, 18, 19 and 5 more")
