"""Admin forms: a credential is added from its clear text, lists are typed with commas."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from pool.crypto import sealed_columns
from pool.fingerprints import fingerprint, hint
from pool.models import UNLIMITED, ClientKey, Credential, Kind
from pool.normalising import BadSecret, Secret, normalise

_WEB_KINDS = (Kind.SSO, Kind.SSO_SUPER)


class CommaListField(forms.Field):
    """A list of strings, shown and typed as ``a, b, c``."""

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(map(str, value)) if isinstance(value, list) else value

    def to_python(self, value: Any) -> list[str]:
        words = (word.strip() for word in str(value or "").split(","))
        return list(dict.fromkeys(word for word in words if word))

    def has_changed(self, initial: Any, data: Any) -> bool:
        return self.to_python(self.prepare_value(initial)) != self.to_python(data)


class CredentialAddForm(forms.ModelForm):  # type: ignore[type-arg]
    """Takes the clear secret once and leaves only its sealed form on the instance."""

    secret = forms.CharField(
        label=_("secret"),
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
        help_text=_("The sso cookie, a whole cookie string, or an xAI API key."),
    )
    tags = CommaListField(label=_("tags"), required=False)

    class Meta:
        model = Credential
        fields = ("kind", "secret", "note", "tags")

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        kind, text = cleaned.get("kind"), cleaned.pop("secret", None)
        if kind and text:
            try:
                self._take(kind, normalise(text, kind))
            except BadSecret as error:
                self.add_error("secret", ValidationError(str(error.reason)))
        return cleaned

    def _take(self, kind: str, secret: Secret) -> None:
        key = fingerprint(kind, secret.identity)
        if Credential.objects.filter(fingerprint=key).exists():
            self.add_error("secret", ValidationError(_("This credential is already here.")))
            return
        self.instance.fingerprint = key
        self.instance.hint = hint(secret.identity)
        for column, value in sealed_columns(secret.value).items():
            setattr(self.instance, column, value)


class CredentialChangeForm(forms.ModelForm):  # type: ignore[type-arg]
    """What an operator may change of a stored credential."""

    tags = CommaListField(label=_("tags"), required=False)

    class Meta:
        model = Credential
        fields = ("kind", "status", "note", "tags")

    def clean_kind(self) -> str:
        """A session can change its tier; it cannot become an API key, or the reverse."""
        kind: str = self.cleaned_data["kind"]
        if (kind in _WEB_KINDS) != (self.initial["kind"] in _WEB_KINDS):
            raise ValidationError(_("A web session and an API key are different things."))
        return kind


class ClientKeyForm(forms.ModelForm):  # type: ignore[type-arg]
    """Name, limits and switch of a client key; the key itself is never typed.

    A limit left empty is none.
    """

    LIMITS = (
        "chat_limit", "heavy_limit", "image_limit", "video_limit", "rpm_limit",
        "concurrency_limit",
    )  # fmt: skip

    allowed_models = CommaListField(
        label=_("allowed models"), required=False, help_text=_("Empty: all models.")
    )

    class Meta:
        model = ClientKey
        fields = (
            "name", "is_active", "expires_at", "allowed_models", "chat_limit", "heavy_limit",
            "image_limit", "video_limit", "rpm_limit", "concurrency_limit",
        )  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in self.LIMITS:
            self.fields[name].required = False

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        for name in self.LIMITS:
            if name in cleaned and cleaned[name] is None:
                cleaned[name] = UNLIMITED
        return cleaned
