"""Generative models: pictures made of noise, and of other pictures."""

from kerasvision.generative.cyclegan import CycleGAN, cyclegan
from kerasvision.generative.dcgan import dcgan
from kerasvision.generative.gan import GAN, gan
from kerasvision.generative.loading import load_generative
from kerasvision.generative.losses import ADVERSARIAL_LOSSES
from kerasvision.generative.pix2pix import Pix2Pix, pix2pix
from kerasvision.generative.wgan_gp import WGANGP, wgan_gp
