"""Foreign forms of state dicts, one file a family."""

from napari_medt.zoo.forms import medt
from napari_medt.zoo.forms.form import Form, Shapes

__all__ = ["FORMS", "Form", "Shapes"]

FORMS: tuple[Form, ...] = (medt.FORM,)
