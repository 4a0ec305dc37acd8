"""Onboarding of accounts the operator already owns, and provisioning of official keys."""
