"""Finetuning runs go in; a rule of one's own comes out, with how far it is to be trusted."""
