"""diffusers' pipeline as somebody runs FastWan with it: the distilled steps as a fixed schedule, everything else its own."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanImageToVideoPipeline, WanPipeline

from inference.engines.fastwan import sampling


class Fixed(FlowMatchEulerDiscreteScheduler):
    """diffusers' scheduler with the distilled model's sigmas, drawing its noise from the generator it is given."""

    generator: Any = None

    def set_timesteps(self, num_inference_steps: Any = None, device: Any = None, **_: Any) -> None:
        """Always the distilled steps."""
        super().set_timesteps(sigmas=list(sampling.SIGMAS), device=device)

    def step(self, model_output: Any, timestep: Any, sample: Any, return_dict: bool = True, **_: Any) -> Any:
        """One step; the noise that it mixes in is drawn on the CPU, so that ours can draw the same."""
        if self.step_index is None:
            self._init_step_index(timestep)
        sigma, following = self.sigmas[self.step_index], self.sigmas[self.step_index + 1]
        sample = sample.to(torch.float32)
        noise = torch.randn(sample.shape, generator=self.generator, dtype=torch.float32).to(sample.device)
        made = (1.0 - following) * (sample - sigma * model_output) + following * noise
        self._step_index += 1
        return (made.to(model_output.dtype),)


def pipeline(transformer: Any, vae: Any, *, fast: bool = False) -> Any:
    """Both modes in one. fast: cuDNN's attention, the transformer's blocks compiled."""
    transformer.set_attention_backend("_native_cudnn" if fast else "native")  # said by none, it is what was last said to any
    if fast:
        transformer.compile_repeated_blocks(fullgraph=True)
    parts = {"transformer": transformer, "vae": vae, "tokenizer": None, "text_encoder": None, "expand_timesteps": True}
    parts["scheduler"] = Fixed(shift=1.0, stochastic_sampling=True)
    return Both(parts)


class Both:
    """The image pipeline if it is given an image, else the text pipeline."""

    def __init__(self, parts: dict[str, Any]) -> None:
        self._image = WanImageToVideoPipeline(**parts, image_encoder=None, image_processor=None)
        self._text = WanPipeline(**parts)
        self.transformer, self.vae, self.scheduler = parts["transformer"], parts["vae"], parts["scheduler"]
        for pipe in (self._image, self._text):
            pipe.set_progress_bar_config(disable=True)

    def __call__(self, **given: Any) -> Any:
        return (self._image if "image" in given else self._text)(**given)
