"""Steps in processes of their own, here or by Parsl."""
