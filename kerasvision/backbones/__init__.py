"""Classification networks: whole, headless, or as feature pyramids."""

from kerasvision.backbones.alexnet import alexnet, alexnet_one_tower
from kerasvision.backbones.cifar_resnet import cifar_resnet
from kerasvision.backbones.darknet import darknet19, darknet53, darknet_tiny
from kerasvision.backbones.densenet import cifar_densenet, densenet121, densenet169, densenet201
from kerasvision.backbones.googlenet import googlenet
from kerasvision.backbones.inception_resnet_v2 import inception_resnet_v2
from kerasvision.backbones.inception_v3 import inception_v3
from kerasvision.backbones.lenet import lenet5
from kerasvision.backbones.mobilenet_v2 import mobilenet_v2
from kerasvision.backbones.network_in_network import network_in_network
from kerasvision.backbones.resnet import resnet18, resnet34, resnet50, resnet101, resnet152
from kerasvision.backbones.squeezenet import squeezenet
from kerasvision.backbones.vgg import vgg11, vgg13, vgg16, vgg19
