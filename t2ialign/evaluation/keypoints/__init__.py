"""Key points measured: files of judged images, accuracy, agreement, recall."""
