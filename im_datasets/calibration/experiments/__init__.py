"""Datasets and a base model go in; finetuning runs come out."""
