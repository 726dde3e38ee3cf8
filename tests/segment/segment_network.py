"""The small network of these tests."""

NETWORK = {
    "architecture": "Unet",
    "encoder": "tu-mobilenetv3_small_050",
    "arguments": {"decoder_channels": [16, 16, 8, 8, 8]},
}
