"""The receiver's live page: what comes in, shown in a browser as it arrives."""
