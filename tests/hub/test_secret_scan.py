"""What looks like a token is found wherever it stands, and what was found is never repeated."""

import pytest
from datasets import Dataset

from im_datasets.hub.secret_scan import find_secrets

# Put together here, so that no scanner takes this file for a leak.
SECRETS = {
    "Hugging Face token": "hf_" + "aB3" * 12,
    "GitHub token": "ghp_" + "aB3d" * 9,
    "GitLab token": "glpat-" + "aB3d" * 5,
    "OpenAI or Anthropic key": "sk-proj-" + "aB3d" * 10,
    "AWS access key": "AKIA" + "ABCD" * 4,
    "Google API key": "AIza" + "aB3dE" * 7,
    "Slack token": "xoxb-" + "1234567890-abc",
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
]


@pytest.mark.parametrize(("kind", "secret"), [*SECRETS.items(), *MORE])
def test_find_secrets_knows_the_usual_formats(kind, secret):
    found = find_secrets(Dataset.from_dict({"text": ["nothing", f"It is {secret}."], "n": [1, 2]}))
    assert [(finding.kind, finding.column, finding.rows) for finding in found] == [(kind, "text", [1])]
    assert secret not in str(found[0]) + repr(found[0])


def test_find_secrets_looks_into_nested_texts_and_names_the_source_rows():
    secret = SECRETS["AWS access key"]
    rows = Dataset.from_dict({"messages": [[{"role": "user", "content": secret}], []], "im_row": [70, 71]})
    assert [(finding.column, finding.rows) for finding in find_secrets(rows)] == [("messages", [70])]


def test_find_secrets_passes_ordinary_texts():
    texts = ["Use sk-learn and hf_hub.", "ghp_short", "eyJ is how it starts", "AKIA", "task-" + "a" * 50, None]
    texts += ["postgres://user:password@host/db", "https://example.org:8080/@me", "mailto:me@example.org", "SG.short.x"]
    texts += ["redis://:${PASSWORD}@host", "ftp://user:<password>@host", "See http://a.b/c:d@e and ya29.short"]
    assert find_secrets(Dataset.from_dict({"text": texts})) == []


def test_finding_has_the_article_of_its_kind():
    found = find_secrets(Dataset.from_dict({"text": [SECRETS["OpenAI or Anthropic key"], SECRETS["npm token"]]}))
    assert [str(finding).partition("looks like ")[2].split(" in row")[0] for finding in found] == [
        "an OpenAI or Anthropic key",
        "an npm token",
    ]


def test_finding_shortens_a_long_list():
    found = find_secrets(Dataset.from_dict({"text": [SECRETS["npm token"]] * 25}))
    assert str(found[0]).endswith("17, 18, 19 and 5 more")
