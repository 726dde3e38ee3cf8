"""The small network of these tests."""

NETWORK = {
    "architecture": "Unet",
    "encoder": "tu-test_efficientnet",
    "arguments": {"decoder_channels": [16, 16, 8, 8, 8]},
}
