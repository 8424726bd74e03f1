"""Cell types from multiplex tissue images without segmentation masks."""
