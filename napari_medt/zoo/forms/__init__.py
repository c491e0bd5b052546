"""Foreign forms of state dicts, one file a family."""

from napari_medt.zoo.forms import attention_unet, baselines, fine, guided_attention, medt, u_transformer, unetr
from napari_medt.zoo.forms.form import Form, Shapes

__all__ = ["FORMS", "Form", "Shapes"]

FORMS: tuple[Form, ...] = (
    medt.FORM,
    *attention_unet.FORMS,
    *baselines.FORMS,
    guided_attention.FORM,
    u_transformer.FORM,
    unetr.SELF_ATTENTION_CV,
    unetr.MONAI,
    *fine.FORMS,
)
