# Used by `make lab`: notebooks are cleaned of noise when they are saved, as nbdev's hooks do.
from nbdev.clean import clean_jupyter

c = get_config()  # noqa: F821 (Jupyter provides it)
c.ContentsManager.pre_save_hook = clean_jupyter
