"""Which trials run, and where: sweep scripts, their algebra, the fork tree and Ray Tune."""
