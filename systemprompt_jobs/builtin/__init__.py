"""The product's own plugins. They use public names only, as any plugin does."""
